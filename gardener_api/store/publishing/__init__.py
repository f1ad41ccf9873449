"""What became of audited partitions: held and decided on, or published, and what that changed."""
