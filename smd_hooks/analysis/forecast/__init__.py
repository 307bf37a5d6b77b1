"""What a plan will do to its scale-invariant weights, before it is trained."""
