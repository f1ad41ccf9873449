// Command parserclient calls the jobs API as the parsers' Go client does.
//
// That client gives each request a context and cancels it as soon as the head of the answer has
// arrived; only then it reads the body. If the server writes head and body apart, net/http often
// drops the body and reports "context canceled": the job that was handed out is lost.
//
// The plan is read from stdin, the results are written to stdout, both as JSON. All groups of a
// plan run at the same time.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

const timeout = time.Minute // as the parsers' client

// A Group sends the same requests over a number of connections.
type Group struct {
	Name        string
	URLs        []string // connection i sends URLs[i % len(URLs)], again and again
	Connections int
	Calls       int // over all connections; 0: until all groups that have a number are done
}

// A Plan is what to do.
type Plan struct {
	Groups []Group
}

// An Answer is what a call came to: a code and a body, or the error that the client reports.
type Answer struct {
	Code  int
	Body  string
	Error string // empty: head and body have arrived
}

// A Result counts equal answers of a group.
type Result struct {
	Name    string
	Answers []Counted
}

// Counted is an answer, and how often it came.
type Counted struct {
	Answer
	Count int
}

// call sends one request and cancels its context once the head of the answer is there.
func call(client *http.Client, url string) Answer {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return Answer{Error: err.Error()}
	}
	response, err := client.Do(request)
	if err != nil {
		return Answer{Error: err.Error()}
	}
	defer response.Body.Close()
	cancel()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return Answer{Code: response.StatusCode, Error: err.Error()}
	}
	return Answer{Code: response.StatusCode, Body: string(body)}
}

// run makes the calls of a group and counts the answers. Each value of tickets allows one call.
func run(group Group, tickets <-chan struct{}) Result {
	var mutex sync.Mutex
	counts := map[Answer]int{}
	var connections sync.WaitGroup
	for i := 0; i < group.Connections; i++ {
		url := group.URLs[i%len(group.URLs)]
		connections.Add(1)
		go func() {
			defer connections.Done()
			client := &http.Client{Transport: &http.Transport{}} // a connection of its own
			defer client.CloseIdleConnections()
			for range tickets {
				answer := call(client, url)
				mutex.Lock()
				counts[answer]++
				mutex.Unlock()
			}
		}()
	}
	connections.Wait()
	result := Result{Name: group.Name, Answers: []Counted{}}
	for answer, count := range counts {
		result.Answers = append(result.Answers, Counted{answer, count})
	}
	return result
}

// give hands out tickets: a number of them, or, if that is 0, until done is closed.
func give(number int, done <-chan struct{}) <-chan struct{} {
	tickets := make(chan struct{})
	go func() {
		defer close(tickets)
		for given := 0; number == 0 || given < number; given++ {
			if number > 0 {
				tickets <- struct{}{}
				continue
			}
			select {
			case tickets <- struct{}{}:
			case <-done:
				return
			}
		}
	}()
	return tickets
}

func main() {
	var plan Plan
	if err := json.NewDecoder(os.Stdin).Decode(&plan); err != nil {
		fmt.Fprintln(os.Stderr, "the plan on stdin:", err)
		os.Exit(2)
	}
	done := make(chan struct{})
	results := make([]Result, len(plan.Groups))
	var counted, all sync.WaitGroup
	for i, group := range plan.Groups {
		i, group := i, group
		all.Add(1)
		if group.Calls > 0 {
			counted.Add(1)
		}
		go func() {
			defer all.Done()
			if group.Calls > 0 {
				defer counted.Done()
			}
			results[i] = run(group, give(group.Calls, done))
		}()
	}
	counted.Wait()
	close(done)
	all.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		fmt.Fprintln(os.Stderr, "the results:", err)
		os.Exit(1)
	}
}
