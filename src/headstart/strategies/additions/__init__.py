"""Small trainable additions to a backbone, by the strategies that ask for them."""

from headstart.strategies.additions.attach import attach, attaches, fold, folded_state

__all__ = ["attach", "attaches", "fold", "folded_state"]
