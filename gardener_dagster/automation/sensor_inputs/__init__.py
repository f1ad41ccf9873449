"""What the table sensors read in one tick."""
