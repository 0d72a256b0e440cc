-- What an owner was ever paid is asked of a book that is kept for ever: by account, not by reading all of it.
CREATE INDEX book_of_account ON fleetbatch.book (to_account) INCLUDE (work_micro, energy_micro) WHERE step = 'settle';
