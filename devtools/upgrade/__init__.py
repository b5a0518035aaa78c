"""A rolling upgrade, played: processes of an earlier commit and of today's code on the same servers.

release.py    two sides: the code, its virtual environment, its processes
fleet.py      processes of one side on the stack
load.py       customers who go on until they are answered
courier/      an app whose newer release knows an event type that the older one does not
run.py        the phases: both ways, through today's migrations and back
evidence.py   what database and logs say afterwards
verdict.py    which promises were kept
"""
