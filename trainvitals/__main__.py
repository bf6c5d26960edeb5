"""`python -m trainvitals` is the command `trainvitals`."""

from trainvitals.cli import main

if __name__ == "__main__":
    main()
