"""The dataclasses of the config, one file per group; their help texts are the only ones there are."""
