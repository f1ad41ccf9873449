"""Sample archives in M-Lab's format, with the numbers they must give."""
