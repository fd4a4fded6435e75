"""Side-by-side measurements of Warren and its counterparts; ``python -m benchmarks.run`` is the entrance.

Read from the top: ``run`` drives ``session``, ``contenders`` sets tunnels up, ``measures`` uses them, ``results`` draws
conclusions, ``tables``, ``picture`` and ``publish`` show them.
"""
