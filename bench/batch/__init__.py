"""What batches make of a model that nobody else asks, and what they cost those who ask beside them."""
