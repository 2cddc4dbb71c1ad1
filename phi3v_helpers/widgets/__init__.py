"""Forms for a notebook: ask about your own pictures, talk on, compare.

controller, tray, pair, snippet and markup know no widgets, and do the work; zone is the way files come in; parts is
what the forms share, and reuse keeps their widgets from being made again; playground, chat, compare and upload are the
forms, and cell is what Colab gets instead.
"""
