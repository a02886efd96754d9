"""Linear layers for others: the field, the pads, the check, the messages.

field         F_p and the seam of its arithmetic                         [7]
shares        seeds and one-time pads                                    [7]
verification  Freivalds' check and the gate every result passes          [8]
messages      requests and results
quick         headers of shares and their results, by a pattern
"""
