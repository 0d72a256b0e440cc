"""The car's process: it knows a gateway's URL and its own key, and nothing else of the system."""
