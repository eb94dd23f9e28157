# What fastcgi_app.php does, with Perl's CGI::Fast; under FCGI::ProcManager if N_PROCESSES says how many workers.
use strict;
use warnings;
use CGI::Fast;
use Time::HiRes qw(usleep);

my $manager;
if ($ENV{N_PROCESSES}) {
    require FCGI::ProcManager;
    $manager = FCGI::ProcManager->new({ n_processes => $ENV{N_PROCESSES} });
    $manager->pm_manage();
}
while (my $query = CGI::Fast->new) {
    $manager->pm_pre_dispatch() if $manager;
    usleep(1000 * ($query->url_param("ms") || 0));
    my $body = $query->param("POSTDATA") // "";
    print "Content-Type: text/plain\r\n\r\n";
    print "pid $$ n ", scalar $query->url_param("n"), " body ", length $body, " ", "x" x 2000, "\n";
    $manager->pm_post_dispatch() if $manager;
}
