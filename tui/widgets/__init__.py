"""What the screens are made of. A widget draws what it is given; what it means is said in `tui.words`."""
