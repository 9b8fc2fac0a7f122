"""What a network costs: multiply-adds."""
