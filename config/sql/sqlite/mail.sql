-- Version 3 of the embedded database: until when a queued mail rests. While it is being sent that is the end of the
-- sender's claim, and then the wait before another try.
ALTER TABLE NheaMailQueue ADD COLUMN NotBefore datetime2(3) NULL;
