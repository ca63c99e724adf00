import signal


def pytest_configure():
    """Tests send Ctrl-C: started in the background of a shell, Python would ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
