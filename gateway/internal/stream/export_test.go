package stream

// Unread is how many joins the client has not read to the end.
func (s *Stream) Unread() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unread
}
