"""A saved result again: what it needs, whether that is still there, and whether the same comes out."""
