import pytest, os, sys
sys.path.insert(0, "/work/main/tests")
pytest_plugins = ["browser"]
from test_browser_zone import SETUP, FORM
LOG = '''
import time
log = []
question.observe(lambda c: (log.append(("value", c["new"])), time.sleep(0.3), log.append("slept")), 'value')
old = drop._receive
drop._msg_callbacks.callbacks.clear()
def rec(w, m, b):
    log.append(m["kind"]); old(m, b)
drop.on_msg(rec)
'''
def test_many(open_notebook, tmp_path):
    nb = open_notebook(SETUP, FORM, LOG)
    text = "What is shown in this picture?"
    page=nb.page
    for i in range(25):
        nb.python("question.value=''; runs.clear(); log.clear()")
        nb.page.wait_for_function("() => document.querySelector('.p3v-question textarea').value === ''")
        nb.find("question").locator("textarea").focus()
        page.keyboard.type(text)
        page.keyboard.press("Control+Enter")
        nb.until("runs")
        r = nb.python("print(runs)")
        if r != str([text]):
            nb.python("import time; time.sleep(1)")
            print(i, r, nb.python("print(log)"), page.evaluate("document.querySelector('.p3v-question textarea').value"))
