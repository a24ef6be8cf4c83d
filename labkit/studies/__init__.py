"""What produced the recorded numbers, and what they say."""
