package api

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

type health struct {
	Status  string   `json:"status"`
	Reasons []string `json:"reasons,omitempty"`
}

// Live says that the process answers.
func (d *Door) Live(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "no-store")
	return answer(c, http.StatusOK, health{Status: "ok"})
}

// Ready says whether the gateway can do its work, and what is missing.
func (d *Door) Ready(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "no-store")
	complaints := d.options.Ready()
	if len(complaints) == 0 {
		return answer(c, http.StatusOK, health{Status: "ok"})
	}
	red := health{Status: "unavailable"}
	for _, err := range complaints {
		red.Reasons = append(red.Reasons, err.Error())
	}
	return answer(c, http.StatusServiceUnavailable, red)
}
