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
