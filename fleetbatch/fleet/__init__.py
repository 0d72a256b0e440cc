"""Vehicle signals become one snapshot: which cars may work now, and of every other car why not."""
