"""The frozen-feature engine: features computed once, and heads fitted on them together."""
