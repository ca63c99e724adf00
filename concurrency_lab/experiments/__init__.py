"""What single chapters measure, when it takes more than one call of an instrument."""
