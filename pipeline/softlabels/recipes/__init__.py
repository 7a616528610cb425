"""What only some recipes need: a tokenizer of their own (`tokenizer`), inputs changed while a teacher is trained (`augment`),
students corrected for other shares of the classes (`prior`, `biased`), a simulated pendulum (`pendulum`), diffusion samplers
(`diffusion`, `mixture`, `noise`, `halving`). No other room knows of it.
"""
