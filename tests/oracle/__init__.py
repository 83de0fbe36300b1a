"""The oracles against literals and slow models."""
