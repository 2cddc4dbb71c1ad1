"""From pictures to data: text, tables, objects, the fields of a schema, documents page by page.

tasks: what the model is asked. schemas: what may be asked for; formats: dates and the like; wording: a schema in the
prompt; tidying: the answer against the schema. grammar: llguidance keeps the answer to the schema; fence: ends a text.
writing: one answer. parts: a form, changed part by part. text, tables, objects, fields: the methods of Phi3Vision;
documents: them for every page.
"""
