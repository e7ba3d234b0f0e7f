"""Lexicons of personal names and of words that are none; lower case, public knowledge, from no data set.

Assumption: a lexicon only raises recall where a cue is weak; it is never the only defence, and it is uneven across cultures.
"""

from __future__ import annotations

from privacy.recognizers.view import word_set

GIVEN_NAMES = word_set(
    """
    aaron abdul abdullah abhishek abigail abraham adam adele adrian adriana agnes ahmad ahmed aidan aiden aisha ajay akash
    akira alan albert alberto alejandra alejandro alex alexa alexander alexandra alexandre alexis alfred ali alice alicia
    alina alisha alison allen allison alma alyssa amanda amar amber amelia amir amit amy ana anand ananya anastasia andre
    andrea andreas andres andrew angel angela angelica angelina anil anita anitha anjali ankit ann anna anne annette annie
    anthony antonia antonio anu anushka aparna april arjun arlene arnold arthur arun aruna arvind asha ashley ashok ashwin
    audrey aurora austin ava avery ayesha barbara barry beatrice becky ben benjamin bernadette bernard bernice beth
    bethany betty beverly bhavya billy blake bob bobby bonnie boris brad bradley brandi brandon brandy brenda brendan
    brent brett brian brianna bridget britney brittany brooke bruce bryan bryce caitlin caleb calvin cameron camila
    camille candice cara carl carla carlos carmen carol carole caroline carolyn carrie casey cassandra catherine cathy
    cecilia cedric celeste chad chandra charlene charles charlie charlotte chen chelsea cheryl chloe chris christian
    christina christine christopher cindy claire clara clarence claudia clayton clifford clint clinton cody colin colleen
    connie connor conor constance corey courtney craig cristina crystal curtis cynthia daisy dale damian damien dan dana
    daniel daniela danielle danny daphne darius darlene darren darryl dave david dawn dean deanna debbie deborah debra
    deepa deepak deepika deepthi denise dennis derek desiree devin devon diana diane dianne diego dinesh divya dmitri
    dolores dominic dominique don donald donna dora doreen doris dorothy doug douglas duane dustin dwayne dylan earl eddie
    edgar edith edmund eduardo edward edwin eileen elaine eleanor elena eli elias elijah elisa elisabeth elise eliza
    elizabeth ella ellen ellie elsa elsie emil emilia emily emma emmanuel enrique eric erica erik erika erin ernest
    esteban esther ethan eugene eva evan eve evelyn farah fatima felicia felipe felix fernando fiona florence frances
    francesca francis francisco franklin fred freddie frederick gabriel gabriela gabrielle gail ganesh gareth garrett gary
    gavin geetha gemma gene geoffrey george georgia gerald geraldine gerard gilbert gina ginger giovanni gita giulia
    gladys glen glenda glenn gloria gopal gordon govind graham greg gregg gregory greta guillermo gustavo guy gwen hamza
    hannah hans hari harini harish harold harriet harry haruto harvey hassan hazel heather hector heidi helen helena helga
    henrik henry herbert herman hilda hiroshi holly howard hugh hugo hussein ian ibrahim ida igor ileana imran ines ingrid
    irene iris irma isaac isabel isabella isabelle isaiah ismail ivan ivy jackie jackson jacob jacqueline jacques jaime
    jake james jamie jan jane janet janice janine jared jasmin jasmine jason javier jay jaya jayden jean jeanette jeanne
    jeff jeffery jeffrey jen jenna jennie jennifer jenny jeremiah jeremy jerome jerry jesse jessica jessie jesus jill jim
    jimmy jo joan joann joanna joanne joaquin jocelyn jodi jody joe joel johan johanna john johnathan johnny jon jonas
    jonathan jordan jorge jose joseph josephine josh joshua joyce juan juanita judith judy julia julian juliana julie
    juliet julio june jun justin kaitlyn kajal karan karen karim karin karina karl karla karthik kate katelyn katherine
    kathleen kathryn kathy katie katrina kavita kavitha kavya kay kayla keith kelli kelly kelsey ken kendra kenneth kenny
    kerry kevin khalid kim kimberly kiran kirk kirsten kishore komal kris krishna kristen kristin kristina kristine kristy
    kumar kurt kyle lakshmi lana lara larry lars latha laura lauren laurence laurie lavanya lawrence leah lee leela leela
    leila lena leo leon leonard leonardo leroy leslie lester leticia levi lewis liam lila lillian lily linda lindsay
    lindsey lionel lisa liz lloyd logan lois lola lorena lorenzo loretta lori lorraine louis louise lucas lucia lucille
    lucy luigi luis luisa luke luna lydia lynn madeline madhu madison maggie mahesh malcolm malik mandy manish manju manoj
    manuel marc marcel marcia marco marcos marcus margaret margarita maria mariah mariam marian mariana marie marilyn
    mario marion marissa marjorie marlene martha martin martina marvin mary maryam mateo mathew matt matteo matthew
    maureen maurice mauricio maya mayra meena meera megan meghan mei melanie melinda melissa melody mercedes meredith mia
    michael michaela michel michele michelle miguel mike mikhail mildred milton min mindy minh miranda miriam mitchell
    mohamed mohammad mohammed mohan mohit moira molly mona monica monique morgan muhammad murali mustafa myra myrtle nadia
    nancy naomi natalia natalie natasha nathan nathaniel naveen neha neil nelson nicholas nick nicolas nicole nikhil
    nikita nina nisha nitin noah noel noelle nora norma norman olga oliver olivia omar omer orlando oscar otto owen pablo
    paige pallavi pam pamela pankaj paola patricia patrick patty paul paula pauline pavan pavel pedro peggy penny perry
    peter phil philip phillip phoebe phyllis pierre pooja prabhu pradeep prakash pranav prasad prasanna praveen preethi
    preeti prem preston priya priyanka rachel rafael raghu rahul raj raja rajan rajesh rajiv rakesh ralph ram rama ramesh
    ramon ramona ramya randall randy rani ranjith raquel rashid raul ravi raymond rebecca reena regina rekha renee revathi
    rhonda ricardo richard rick ricky riley rita ritu robert roberta roberto robin rochelle rodney rodrigo roger rohan
    rohit roland ron ronald ronda ronnie rosa rosalie rosario rosemary ross roxanne roy ruben ruby rudolf russell ruth
    ryan sabrina sachin sadie saeed sally salma salman samantha samir samuel sandeep sandhya sandra sandy sangeetha sanjay
    sanjeev santhosh santiago santosh sara sarah saravanan saritha sasha satish savannah scott sean sebastian selena selvi
    senthil sergei sergey sergio seth shalini shanna shannon shanthi sharon shashi shaun shawn sheena sheila shelby
    shelley shelly sherri sherry shirley shiva shreya shruti sid siddharth sidney silvia simon simone sneha sofia sonia
    sonja sophia sophie sri sridhar srinivas srinivasan stacey stacy stan stanley stefan stella stephanie stephen steve
    steven stewart stuart subash sudha sudhir suman sumathi sunil sunita suresh surya susan susana sushma suzanne swati
    swathi sylvia tamara tammy tanya tara taylor ted teresa terrance terry thelma theo theodore theresa thomas tiffany tim
    timothy tina toby todd tom tomas tommy toni tony tracey traci tracy travis trevor tricia trisha troy tyler uma usha
    valerie vanessa varun venkat venkatesh vera vernon veronica vicki vickie vicky victor victoria vidya vijay vikas
    vikram vinay vincent vinod viola violet virginia vishal vivek vivian vladimir wade walter wanda wayne wei wendy wesley
    whitney wilfred william willie wilma winifred xavier xiao yan yash yasmin yolanda yuki yusuf yvette yvonne zachary
    zainab zoe
    """
)

SURNAMES = word_set(
    """
    adams agarwal ahmed aguilar alexander ali allen alvarez anderson andrews armstrong arnold bailey baker barnes bell
    bennett bhat black boyd bradley brooks brown bruce bryant burke burns butler campbell carpenter carroll carter
    castillo castro chan chandra chang chavez chen cheng choi chopra clark cole coleman collins cook cooper cox crawford
    cruz cunningham daniels das davies davis desai diaz dixon duncan dunn edwards elliott ellis evans ferguson fernandez
    fernando fisher fischer fletcher flores ford foster fox franklin freeman garcia gardner gibson gomes gomez gonzales
    gonzalez gordon graham grant gray green greene griffin gupta gutierrez hall hamilton hansen harper harris harrison
    hart harvey hawkins hayes henderson henry hernandez herrera hicks hill ho hoffman holmes howard hudson hughes hunt
    hunter hussain ivanov iyer jackson jacobs james jain jenkins jensen jimenez johnson johnston jones jordan joseph joshi
    kapoor kaur kelley kelly kennedy khan kim king klein knight kumar lane larson lawrence lawson lee lewis li lin liu
    lopez lynch marshall martin martinez mason matthews mccarthy mcdonald medina mehta mendoza menon meyer miller mills
    mishra mitchell mohamed montgomery moore morales moreno morgan morris morrison mukherjee muller murphy murray myers
    naidu nair nelson newman nguyen nichols novak oconnor obrien oliver olson ortega ortiz owens palmer parker patel patil
    patterson payne perez perkins perry peters peterson petrov pham phillips pierce pillai porter powell prasad price
    quinn ramirez ramos rao ray reddy reed reyes reynolds rice richards richardson riley rivera roberts robertson robinson
    rodriguez rogers romero rose ross rossi ruiz russell ryan sanchez sanders santos sato schmidt schneider schultz
    schwartz scott sharma shah shaw silva simmons simpson singh smith snyder spencer stephens stevens stewart stone
    sullivan sun suzuki tanaka taylor thomas thompson torres tran tucker turner varma vasquez verma wagner walker wallace
    walsh wang ward warren watkins watson weaver webb weber wells west wheeler white williams williamson wilson wong wood
    woods wright wu xu yadav yamamoto yang york young yu zhang zhao zhou zimmerman
    """
)

# Given names that are everyday words too: alone they prove nothing.
AMBIGUOUS_NAMES = word_set(
    """
    amber angel april asha austin ava chad chandra charlotte chase crystal dale dan dawn dean don drew earl eve florence
    frank gene ginger glen grace guy hazel holly iris ivy jackie jade jan jay jean jordan june jun ken kim kiran kris lee
    logan london luna mark max maya mei melody mercedes min morgan mona norma orlando paige penny ram raj ray rama ravi
    robin ross ruby sandy savannah sid stan sydney ted theo tony troy uma viola violet virginia wade wei will yan georgia
    madison brandy chelsea dominic don ida
    """
)

# Words that follow "my name is", "I am" or open a turn, and end a name.
STOP_WORDS = word_set(
    """
    a able about above account acct ac actually add address after again ago all already also always am an and another any
    anyone anything are as ask at available away back bad balance bank be because been before being below best better
    between big bill birth but buy by bye call called calling came can cancel cannot card case change changed charge check
    checking city close closed code come coming company complaint confirm confirmed contact correct could credit customer
    date day days dear debit deliver delivered delivery details did different digit digits disappointed do does done dont
    down during each email ending ends error even ever every everything excited expired fine first five for found four
    from full furious get getting give given glad go going gone good got great had happy has hasn't have having he hello
    help helping her here hey hi him his home hope house how however i if im in incorrect info information interested into
    is issue it item its just kind know last late later let like line lived living locked login long looking lost love
    made mail make many maam madam may me mean message might mine missing mobile money month more morning most much must
    my name near need needed never new next nice night no none not nothing now number of off offer ok okay old on once one
    only open or order ordered other our out over own package paid password pay paying payment people phone pin place
    please pls possible problem product provide put question quite ready really reason received refund regarding report
    request return right safe said same savings say saying see send sent service several she should show since sir six so
    some someone something soon sorry ssn still street such sure tell ten than thank thanks that thats the their them then
    there these they thing things think this those three ticket till time tired to today told tomorrow too total
    transaction transfer trouble try trying two unable under understand until up update upset upto us use used user
    username using very via visa wait waiting want wanted was way we week well went were what whats when where which while
    who why will wish with without wont work working worried would writing wrong yeah year yes yesterday yet you your
    yours social security credit/debit regards cheers sincerely best welcome hotmail gmail com www http https wondering
    checking hoping having curious confused using spelled registered listed linked associated under attached mentioned
    required blank hidden wrongly correctly misspelled pronounced not spelt support team agent assistant bot admin manager
    representative staff monday tuesday wednesday thursday friday saturday sunday january february hai haii hii hlo helo
    ya yup yep nope superb okey awesome perfect lol okie cool mr mrs ms miss mx dr prof professor doctor march june july
    august september october november december street avenue road lane drive afternoon evening
    """
)
