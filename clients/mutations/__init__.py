"""Resources with one planted fault each, and variants that are sound, made from the official definitions."""
