"""The self-test: measurements beside peers in one run, as ratios, with machine and load.

Every benchmark gives one `Document`; results lie under docs/benchmarks, those that lost too. Peers
run as processes of their own, with the interpreter of an environment that holds them. Knows nothing
of how parts work inside: it uses
edvac as a user would.
"""
