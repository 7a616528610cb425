"""What only some recipes need: a tokenizer of their own (`tokenizer`), inputs changed while a teacher is trained (`augment`),
students corrected for other shares of the classes (`prior`, `biased`), sound (`log_mel`, `frame_net`, `clip_frames`), a
detector (`detect_rows`, `detect_grid`, `detect_boxes`, `detect_model`, `detect_ap`, `detect_score`), a simulated pendulum
(`pendulum`), diffusion samplers (`diffusion`, `mixture`, `noise`, `halving`), graphs (`graph_rows`, `graph_net`), history
compression (`recall_rows`, `chunker`). No other room knows of it.
"""
