<?php
// What the tests ask of a FastCGI program: to say who it is and what it was asked, and to take as long as it was told.
header("Content-Type: text/plain");
usleep(1000 * ($_GET["ms"] ?? 0));
echo "pid ", getmypid(), " n ", $_GET["n"], " body ", strlen(file_get_contents("php://input")), " ", str_repeat("x", 2000), "\n";
