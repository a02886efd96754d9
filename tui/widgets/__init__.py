"""What the screens are made of. A widget draws what it is given; the words are in `tui.words`.

bars               the line of screens at the top and the line of facts above the keys
prompt             where a person types
conversation_view  prompts and answers, of which only the visible part is drawn
answer_writer      writes an answer as it grows
answer_lines       the part of an answer that no longer grows
markdown           Markdown as a model writes it
live_table         a table whose cells change several times a second
chunk_views        chunks as a list, a timeline and a map
"""
