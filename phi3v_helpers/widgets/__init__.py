"""Forms for a notebook: ask about your own pictures, talk on, compare.

controller, tray, snippet and markup know no widgets, and do the work; zone is the way files come in; parts is what
the forms share; playground, chat and compare are the forms, and cell is what Colab gets instead.
"""
