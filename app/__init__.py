"""What a person sees: asks and draws, computes nothing."""
