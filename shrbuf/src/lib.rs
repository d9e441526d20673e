//! shrbuf
