"""Proof that no lock is lost and none is held twice, from what clients, commands and the disk have seen.

    histories    history.py (what clients did, and when), linearizability.py (can it have been one after the other?),
                 models.py (what a lock service may answer), clients.py (real ones), recorded.py (runs of them)
    crowds       witness.py (the command under the lock), crowd.py (many lockersh), chaos.py (what happens to them)
    replicas     replicas.py (several lockerd on etcd, with a crowd), storm.py (what happens to them), fail_overs.py
                 (histories)
    the disk     trace.py (what strace saw), disk.py (what would be left of it after a power cut), outages.py (runs of
                 a server that is killed, or whose power is cut)
    planted.py   faults put into the product for a moment, which each of the proofs must find, or a test of the product
                 (planting.py)

`make torture SEED=... SECONDS=...` (__main__.py) runs all of it for as long as it is told to.
"""
