"""The store of the table runs: what they made, which partitions they work on, what they found."""
