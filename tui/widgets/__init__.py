"""The parts of screens. A widget draws what it is given; the words are in `tui.words`.

bars               the line of screens at the top and the status line above the keys
welcome            the text of an empty conversation
prompt             the input for prompts
conversation_view  prompts and answers; only the visible part is drawn
answer_writer      writes an answer as it grows
answer_lines       the part of an answer that no longer grows
markdown           Markdown written by a model
live_table         a table whose cells change several times a second
chunk_views        chunks as a list, a timeline and a map
"""
