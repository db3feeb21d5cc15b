"""What scripts of tests are put together from that kill themselves before a step of writing."""

#: Wraps a function: the process is killed at the call at which `left`, counted down, comes to 0.
COUNTED = """
def counted(step):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*arguments, **options)
    return call
"""

#: Before the forks of a process: what each would look for else, and what is in memory is not gone through.
BEFORE_FORKS = """
import gc
import breeds.features.hdf5
breeds.features.hdf5.versions()
gc.freeze()
"""
#: Sums so small are not worth threads, which each fork would start anew.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
