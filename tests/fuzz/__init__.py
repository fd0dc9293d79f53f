"""The adversary: seeded, hostile changes to every recipe, each tried in a folder that it cannot leave.

``python -m tests.fuzz --cases 5000 --seed 7`` tries 5,000 of them. A case is a recipe (with tiny data and networks)
and one to three changes; its number and the seed give it again: ``--only NUMBER``. Each is dry-run, and where that
passes it is run: two training steps, or a test. What fails: any exception but our own, an exit code that is not
documented, an error that is not one sentence, a run that refuses what its dry run passed, a hang, and anything written
outside of the case's folder or by a dry run.
"""
