"""What only some recipes need: a tokenizer of their own (`tokenizer`), inputs changed while a teacher is trained (`augment`),
students corrected for other shares of the classes (`prior`, `biased`), sound (`log_mel`, `frame_net`, `clip_frames`). No
other room knows of it.
"""
