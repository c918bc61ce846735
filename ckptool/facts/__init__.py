"""What is true of a checkpoint, from its headers: one file per kind of fact, which says what each operation does to it.

`registry` finds the facts of a checkpoint, `consult` asks them about a plan. This room knows formats and what is below.
"""
