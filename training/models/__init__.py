"""Model architectures; every layer is one that the engine has exact per-unit gradients for."""
