"""What a car decides by itself: who it is, whether it may compute now, and what it does next."""
