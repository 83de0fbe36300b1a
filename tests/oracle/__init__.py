"""The oracles against literals and slow models; a package, as tests/live names files alike."""
