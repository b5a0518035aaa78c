"""The relay under chaos: scenarios of its own, because what it promises is of another kind."""
