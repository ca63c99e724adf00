# Every task is in course.py, so that it also runs where there is no make.
PYTHON ?= python3

.PHONY: book test lab clean lock
book test lab clean lock:
	@$(PYTHON) course.py $@
