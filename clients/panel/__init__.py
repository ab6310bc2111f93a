"""Independent validators, and what they judge."""
