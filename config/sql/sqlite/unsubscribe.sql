-- Version 6 of the embedded database: the link by which the recipient of a queued mail switches such mails off.
ALTER TABLE NheaMailQueue ADD COLUMN UnsubscribeUrl nvarchar(2000) NULL;
